"""Numbers for Prometheus, by the names that servers of diffusion models have (SGLang, tt-media).

Labels are states, stages and sizes: never a prompt, an id or an adapter.
"""

import prometheus_client as prometheus

PREFIX = 'mgjax:diffusion_'
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200)


class Metrics:
  """What a server counts; `text` is what Prometheus reads."""

  def __init__(self):
    """Makes all of them, in a registry of their own."""
    own = {'registry': prometheus.CollectorRegistry()}
    self._registry = own['registry']
    timed = {'buckets': _SECONDS, **own}
    gauge, counter, histogram = prometheus.Gauge, prometheus.Counter, prometheus.Histogram
    self.queued = gauge(f'{PREFIX}num_queue_reqs', 'Jobs that wait.', **own)
    self.running = gauge(f'{PREFIX}num_running_reqs', 'Jobs that this process makes.', **own)
    self.requests = counter(f'{PREFIX}requests', 'Jobs that ended here.', ['status'], **own)
    self.refused = counter(f'{PREFIX}refused', 'Requests that were refused.', ['status'], **own)
    self.latency = histogram(f'{PREFIX}request_latency_seconds', 'From POST to the end.', **timed)
    self.queue_time = histogram(f'{PREFIX}queue_time_seconds', 'From POST to a device.', **timed)
    self.batch = histogram(
      f'{PREFIX}generation_batch_size', 'Jobs of a call.', buckets=(1, 2, 4, 8, 16, 32), **own
    )
    stages = 'Of a stage of a call: sample, upscale, sound, write.'
    self.stage = histogram(f'{PREFIX}stage_host_latency_seconds', stages, ['stage'], **timed)
    self.duration = histogram(
      'video_generation_duration_seconds',
      'Of a job, without its wait.',
      ['resolution', 'status'],
      **timed,
    )
    self.step = histogram('video_step_duration_seconds', 'Of a step of a batch.', **timed)
    self.factor = gauge('video_realtime_factor', 'Seconds made in one second, of late.', **own)
    self.bytes = counter('video_output_bytes', 'Written.', **own)

  def text(self) -> bytes:
    """Returns all values in the format of Prometheus."""
    return prometheus.generate_latest(self._registry)
