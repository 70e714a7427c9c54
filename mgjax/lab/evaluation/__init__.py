"""Evaluation of trained models: evaluators, metrics, judges, suites (Movie Gen §3.5)."""
