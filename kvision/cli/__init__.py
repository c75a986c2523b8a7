"""What the commands of `kvision` do, one file a command (see kvision_cli.py)."""
