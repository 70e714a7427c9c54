"""How good a model is: evaluators, metrics, judges, suites (Movie Gen §3.5)."""
