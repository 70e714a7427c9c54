"""Logical names of parameter axes, independent of any mesh.

Every parameter carries one name an axis; `parallel/rules.py` maps each name to mesh axes.
"""

LOGICAL_AXES = {
  'layers': 'stacked layers of a scan, never sharded',
  'embed': 'model width d',
  'heads': 'all attention heads side by side, g k',
  'hidden': 'FFN width f',
  'modulation': 'the stacked scale, shift and gate vectors of adaptive normalisation',
  'frequencies': 'sinusoidal features of the flow time',
  'patch': 'the numbers of one patch, in or out',
  'positions': 'entries of a position table',
  'vocabulary': 'entries of a token table',
  'window': 'the taps of a convolution along one axis',
  'rank': 'of an adapter, between its two maps',
  'channels_in': 'channels that a convolution reads',
  'channels': 'channels that a convolution writes, or that a norm or bias acts on',
}
