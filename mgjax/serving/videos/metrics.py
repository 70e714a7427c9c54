"""Numbers for Prometheus, by the names that servers of diffusion models have (SGLang, tt-media).

Labels are states, stages and sizes: never a prompt, an id or an adapter.
"""

from typing import Any

PREFIX = 'mgjax:diffusion_'
_SECONDS = (.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200)  # fmt: skip


class Metrics:
  """What a server counts; `text` is what Prometheus reads."""

  def __init__(self):
    """Makes all of them, in a registry of their own."""
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    self._registry = CollectorRegistry()

    def made(kind: Any, name: str, help: str, labels: tuple[str, ...] = (), **options: Any) -> Any:
      name = name if name.startswith('video_') else PREFIX + name
      return kind(name, help, labels, registry=self._registry, **options)

    timed = {'buckets': _SECONDS}
    self.queued = made(Gauge, 'num_queue_reqs', 'Jobs that wait.')
    self.running = made(Gauge, 'num_running_reqs', 'Jobs that this process makes.')
    self.requests = made(Counter, 'requests', 'Jobs that ended here.', ('status',))
    self.latency = made(Histogram, 'request_latency_seconds', 'From POST to the end.', **timed)
    self.queue_time = made(Histogram, 'queue_time_seconds', 'From POST to a device.', **timed)
    batches = (1, 2, 4, 8, 16, 32)
    self.batch = made(Histogram, 'generation_batch_size', 'Jobs of a call.', buckets=batches)
    stages = 'Of a stage of a call: sample, upscale, sound, write.'
    self.stage = made(Histogram, 'stage_host_latency_seconds', stages, ('stage',), **timed)
    self.duration = made(
      Histogram, 'video_generation_duration_seconds', 'Of a job, without its wait.',
      ('resolution', 'status'), **timed,
    )  # fmt: skip
    self.step = made(Histogram, 'video_step_duration_seconds', 'Of a step of a batch.', **timed)
    self.factor = made(Gauge, 'video_realtime_factor', 'Seconds made in one second, of late.')
    self.bytes = made(Counter, 'video_output_bytes', 'Written.')
    self.refused = made(Counter, 'refused', 'Requests that were refused.', ('status',))

  def text(self) -> bytes:
    """Returns all values in the format of Prometheus."""
    from prometheus_client import generate_latest

    return generate_latest(self._registry)
