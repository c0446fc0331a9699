"""What a workflow says: typed, frozen, and without any input or output."""

import os

# Before pydantic is imported: a plugin that is installed for something else must not run here, or change what a
# workflow means; and looking for some means to read the description of every package that is installed.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
