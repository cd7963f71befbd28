"""`discl-ray` and `python -m discl_ray`: listens for signals first, then imports the rest."""

from discl_ray.process.stopping import listen


def main() -> None:
    """Runs the command line, and ends the process with its exit code."""
    listen()
    from discl_ray.cli import main as run

    run()


if __name__ == "__main__":
    main()
