"""The primitives that take most of a network's time, in the forms that are fastest.

Functions take one image [h, w, c]. Where a form differs from the stock operation of JAX
or Flax, the module says what was measured and how far the two agree.
"""
