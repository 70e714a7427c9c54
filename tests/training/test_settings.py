"""Settings are what a configuration says, and refuse what cannot be by the name of its key."""

from mgjax.core.settings import annotations
from mgjax.training.checkpoints.orbax_io import Keep
from mgjax.training.guard import UpdateGuard
from mgjax.training.monitoring.watchdog import PhaseLimits
from mgjax.training.settings import Patience, bucket_settings, optimizer_settings, run_settings
from tests import tiny


def test_a_configuration_is_its_settings():
  config = tiny.autoencoder()
  train = config.train.to_dict()
  settings = run_settings(train, 7)
  assert settings.seed == 7 and settings.steps == config.train.steps
  assert {name: getattr(settings, name) for name in annotations(Keep)} == {
    name: train[name] for name in annotations(Keep)
  }
  assert settings.faults == UpdateGuard(**train['faults'])
  assert settings.limits == PhaseLimits(**train['limits'])
  optimizer = optimizer_settings(config.optimizer.to_dict())
  assert optimizer.learning_rate == config.optimizer.learning_rate
  assert optimizer.plateau == Patience(**config.optimizer.plateau.to_dict())


def test_what_older_configurations_lack_has_a_value():
  settings = run_settings({'steps': 3})
  assert (settings.keep, settings.faults, settings.limits) == (3, UpdateGuard(), PhaseLimits())
  assert optimizer_settings({'learning_rate': 1.0}).plateau.patience == 0


def test_a_bucket_is_as_long_as_its_frames_or_seconds():
  buckets = bucket_settings(
    {
      'video': {'frames': 8, 'height': 4, 'width': 4, 'batch_size': 2, 'weight': 3},
      'sound': {'seconds': 0.4, 'batch_size': 2},
    }
  )
  assert {name: each.length for name, each in buckets.items()} == {'video': 8, 'sound': 0.4}
