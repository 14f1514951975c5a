"""Many runs: which are to be done, where they are done, and what became of them."""
