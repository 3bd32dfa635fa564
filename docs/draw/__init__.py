"""The pictures of the documentation: `python -m docs.draw [NAME ...]` draws them into docs/images, light and dark.

A module `NAME.py` of this package draws the picture NAME by its function `draw(dark)`, or several by its mapping
`PICTURES` from names to such functions. They return a figure of Matplotlib, or an image of Pillow. Colours and sizes of
text are set around them: see `style`.
"""
