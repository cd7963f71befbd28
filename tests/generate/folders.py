"""The embedded generator's folder with changes."""

import json


def edited(folder, **change):
    """The folder with other scheduler settings; None leaves a key out."""
    file = folder / "scheduler" / "scheduler_config.json"
    settings = {**json.loads(file.read_text()), **change}
    file.write_text(
        json.dumps({k: v for k, v in settings.items() if k not in change or v is not None})
    )
    return folder
