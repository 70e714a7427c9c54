"""Flow matching on plain arrays (Movie Gen §3.1.2, §3.4.2): no Flax, no model.

Read `path`, `times` and `objective` for training (`diffusion` and `prediction` are a baseline to
compare with); then `schedules`, `solvers`, `guidance` and `sample` for generation.
"""
