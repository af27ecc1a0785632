"""Many runs of one recipe: what is varied, carrying it out, and what came of it."""
