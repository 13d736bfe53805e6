"""Model families. A new one is one object in one file here, and one line in the table.

The object is a :class:`~m3router.m3core.checkpoints.families.base.Family`; the line stands in
:data:`m3router.m3core.checkpoints.families.table.FAMILIES`. Nothing else in the project knows
families: loading, costs, conversion, training and drawing go through the table.
"""
