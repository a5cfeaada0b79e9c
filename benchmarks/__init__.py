"""This library beside what people use today, on the same bytes, in one run.

``python -m benchmarks --help`` says how; docs/performance.md says what came out.
"""
