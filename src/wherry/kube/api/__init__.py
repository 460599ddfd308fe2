"""What the kinds are: schema, defaults, validation, conversion, patches, table columns.

Pure data and functions over plain dicts; no I/O beyond reading the schema data. An object that has
left the API machinery is shared and never changed in place: copy before you change.
"""
