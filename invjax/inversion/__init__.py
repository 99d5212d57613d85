"""One code to images: the request, the loop, what is compiled, one lane, solvers."""
