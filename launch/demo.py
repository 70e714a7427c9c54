r"""A first look: a prompt becomes a video, a larger one with its sound, an edit of it, and a page.

python -m launch.demo --prompt="a red ball rolls left and hits a blue cube" \
  --edit="make the red ball yellow"
python -m launch.demo --world=digits --prompt='the red digit 7 bounces' --edit='make the digit blue'
It takes the small models that ship with mgjax, needs no GPU, and is done in about a minute.
Open demo/index.html in a browser. `launch.sample` makes more, of any model.
"""

from absl import flags

from . import command_line, flag_values

_PROMPT = flags.DEFINE_string('prompt', '', "What to show; the world's example if not given.")
_EDIT = flags.DEFINE_string('edit', '', "An instruction to edit by; the world's if not given.")
_WORLD = flags.DEFINE_enum('world', 'solids', ('solids', 'digits'), 'Whose models.')
_OUT = flags.DEFINE_string('out', 'demo', 'A folder.')
_SEED = flag_values.seed('seed', 'Of the noise.')


def main(_) -> None:
  from mgjax.apps.demo import make_demo

  written = make_demo(
    _OUT.value, world=_WORLD.value, prompt=_PROMPT.value, edit=_EDIT.value, seed=_SEED.value
  )
  print(*written, sep='\n')


if __name__ == '__main__':
  command_line.run(main)
