"""What the command line says in few letters, and what the library gets of it."""

import pytest

from launch import flag_values
from mgjax.core.errors import ConfigError


@pytest.mark.parametrize(
  ('text', 'guidance'),
  [
    (None, None),
    ('3', 3.0),
    ('-0.5', -0.5),
    ('3@0.2-0.8', (3.0, (0.2, 0.8))),
    ('text=3,first_frame=4', {'text': 3.0, 'first_frame': 4.0}),
    ('text=3@0.2-0.8', {'text': (3.0, (0.2, 0.8))}),
    ('source=1.5, text=7.5@0-1', {'source': 1.5, 'text': (7.5, (0.0, 1.0))}),
  ],
)
def test_guidance_is_a_scale_or_scales_by_name_in_their_order(text, guidance):
  found = flag_values.guidance(text)
  assert found == guidance
  assert not isinstance(found, dict) or list(found) == list(guidance)


@pytest.mark.parametrize(
  'text', ['', 'text', 'text=', '3,4', 'text=3,4', 'text=3,text=4', '3@0.2', '3@x-1', 'a=b=3', ',']
)
def test_guidance_of_another_form_is_refused(text):
  with pytest.raises(ConfigError, match='expected a scale, as in 3, or scales of conditions by'):
    flag_values.guidance(text)
