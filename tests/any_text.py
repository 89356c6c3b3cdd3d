"""Texts to draw examples from."""

from hypothesis import strategies as st

# Texts with anything that UTF-8 can say. A leading U+FEFF is a byte order mark, not text.
texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda text: text.strip() and not text.startswith("\ufeff")
)
