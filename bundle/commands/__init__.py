"""The command line: what each command's options are and what it does with them."""
