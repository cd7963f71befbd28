"""`discl-ray verify` as a script: discl_ray/commands/verify.py."""

from discl_ray.process.stopping import listen

if __name__ == "__main__":
    listen()  # before the imports, which take their time
    from discl_ray.cli import run_command

    run_command("verify")
