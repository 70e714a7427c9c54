"""A ComfyUI node that makes videos with a server of `launch.serve`. Not run in ComfyUI yet.

Copy this file into ComfyUI's folder custom_nodes. MGJAX_URL names the server.
"""

import json
import os
import time
import urllib.request

URL = os.environ.get('MGJAX_URL', 'http://127.0.0.1:8000')


def ask(path, body=None):
  """Returns the body of an answer; with `body`, a dict, it sends a POST request."""
  data = None if body is None else json.dumps(body).encode()
  request = urllib.request.Request(URL + path, data, {'Content-Type': 'application/json'})
  with urllib.request.urlopen(request) as answer:
    return answer.read()


class MgjaxVideo:
  """From a prompt and a seed to the path of an mp4 file."""

  RETURN_TYPES = ('STRING',)
  FUNCTION = 'make'
  CATEGORY = 'video'

  @classmethod
  def INPUT_TYPES(cls):  # noqa: N802, the name that ComfyUI calls
    return {
      'required': {'prompt': ('STRING', {'multiline': True}), 'seed': ('INT', {'default': 0})}
    }

  def make(self, prompt, seed):
    video = json.loads(ask('/v1/videos', {'prompt': prompt, 'seed': seed}))
    while video['status'] in ('queued', 'in_progress'):
      time.sleep(0.5)
      video = json.loads(ask(f'/v1/videos/{video["id"]}'))
    path = os.path.join('output', f'{video["id"]}.mp4')
    with open(path, 'wb') as file:
      file.write(ask(f'/v1/videos/{video["id"]}/content'))
    return (path,)


NODE_CLASS_MAPPINGS = {'MgjaxVideo': MgjaxVideo}
