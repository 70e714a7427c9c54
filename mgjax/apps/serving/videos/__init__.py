"""Serves models as OpenAI's videos API, with durable jobs, a real cancel and previews."""
