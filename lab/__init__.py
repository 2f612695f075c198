"""The code behind utils.py; notebooks import `utils`, never this package."""
