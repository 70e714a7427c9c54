"""A server of chat completions on this machine, which misbehaves as it is told."""

import collections
import http.server
import json
import random
import threading
import time

from mgjax.lab.language_models.endpoint import FAILED, Endpoint, EndpointSettings, Question

LARGE = 1 << 16  # bytes of an answer that is too large for the settings of these tests
FAULTS = (
  'busy',
  'busy_until',
  'broken',
  'cut',
  'cut_chunks',
  'closed',
  'silent',
  'drip',
  'drip_headers',
  'html',
  'not_json',
  'no_choices',
  'no_text',
  'empty',
  'max_tokens',
  'garbage',
  'endless_continue',
)


class Server(http.server.ThreadingHTTPServer):
  """Answers a question with `answer(text)`, after the faults that `faults(text)` lists.

  Attributes:
    requests: by the text of their question: (headers, body, time).
  """

  daemon_threads = True
  request_queue_size = 64

  def __init__(self, answer=lambda text: f'answer to {text}', faults=lambda text: ()):
    super().__init__(('127.0.0.1', 0), Handler)
    self.answer, self.faults = answer, faults
    self.requests = collections.defaultdict(list)
    self.lock, self.over = threading.Lock(), threading.Event()
    self.at_once = self.most_at_once = 0
    self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

  @property
  def url(self):
    return f'http://127.0.0.1:{self.server_port}/v1'

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *_):
    self.over.set()
    self.shutdown()
    self._thread.join()
    self.server_close()

  def handle_error(self, request, client_address):
    pass  # clients that are killed or lose patience close their connections


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def do_POST(self):
    server = self.server
    body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    text = question_of(body)
    with server.lock:
      number = len(server.requests[text])
      server.requests[text].append((dict(self.headers), body, time.monotonic()))
      server.at_once += 1
      server.most_at_once = max(server.most_at_once, server.at_once)
    try:
      faults = server.faults(text)
      fault = faults[number] if number < len(faults) else 'well'
      self.close_connection = True
      if fault.startswith(('well', 'late')):
        time.sleep(0.05 * (fault == 'late'))
        self.reply(200, completion(server.answer(text)))
      elif fault in REPLIES:
        status, value, *headers = REPLIES[fault]
        self.reply(status, value, **dict(headers))
      else:
        getattr(self, fault)()
    finally:
      with server.lock:
        server.at_once -= 1

  def reply(self, status, value, **headers):
    self.send(status, json.dumps(value).encode(), **headers)

  def send(self, status, data, length=None, kind='application/json', **headers):
    self.send_response(status)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(data) if length is None else length))
    for name, value in headers.items():
      self.send_header(name.replace('_', '-'), value)
    self.end_headers()
    self.wfile.write(data)

  def hang(self, piece=b''):
    """Sends a byte now and then, or nothing, for as long as the client stays."""
    while not self.server.over.wait(0.02):
      self.wfile.write(piece)

  def broken(self):
    self.send(500, b'Traceback \x1b[31m (most recent call last)', kind='text/plain')

  def cut(self):
    data = json.dumps(completion('half an answer')).encode()
    self.send(200, data[:-9], length=len(data))

  def cut_chunks(self):
    self.send_response(200)
    self.send_header('Transfer-Encoding', 'chunked')
    self.end_headers()
    self.wfile.write(b'40\r\n{"choices"')

  def closed(self):
    pass

  def silent(self):
    self.hang()

  def drip(self):
    self.send(200, b'{"choices"', length=10**6)
    self.hang(b' ')

  def drip_headers(self):
    self.wfile.write(b'HTTP/1.1 200 OK\r\nX: ')
    self.hang(b'x')

  def endless_continue(self):
    for _ in range(2000):
      self.wfile.write(b'HTTP/1.1 100 Continue\r\n\r\n')

  def huge_by_its_header(self):
    self.send(200, b'{', length=10**15)

  def huge_without_end(self):
    self.wfile.write(b'HTTP/1.1 200 OK\r\n\r\n')
    while not self.server.over.is_set():
      self.wfile.write(b'x' * 4096)

  def html(self):
    self.send(200, b'<html>please log in</html>', kind='text/html')

  def not_json(self):
    self.send(200, b'[' * 5000)

  def garbage(self):
    self.wfile.write(random.Random(0).randbytes(200))

  def echo(self):
    self.reply(401, {'error': {'message': f'no such key: {self.headers["Authorization"]}'}})

  def escaped_echo(self):
    key = ''.join(f'\\u{ord(letter):04x}' for letter in self.headers['Authorization'])
    self.send(500, f'{{"error": "{key}"}}'.encode())

  def echo_in_headers(self):
    self.reply(302, {}, Location=f'http://127.0.0.1/?key={self.headers["Authorization"]}')

  def echo_as_status(self):
    self.wfile.write(f'HTTP/{self.headers["Authorization"]} 200\r\n\r\n'.encode())


def completion(text, reason='stop'):
  message = {'role': 'assistant', 'content': text}
  return {'choices': [{'index': 0, 'message': message, 'finish_reason': reason}]}


# Faults that are whole replies: a status, a value, and headers.
REPLIES = {
  'busy': (429, {'error': {'message': 'too many'}}),
  'busy_until': (429, {'error': {'message': 'too many'}}, ('Retry_After', '0')),
  'busy_a_second': (503, {'error': {'message': 'loading'}}, ('Retry_After', '1')),
  'busy_for_a_day': (429, {'error': {'message': 'tomorrow'}}, ('Retry_After', '86400')),
  'refused': (400, {'error': {'message': 'too long a prompt'}}),
  'moved': (307, {}, ('Location', 'http://127.0.0.1:9/v1/chat/completions')),
  'huge': (200, completion('x' * LARGE)),
  'no_choices': (200, {'error': {'message': 'overloaded'}, 'choices': []}),
  'no_text': (200, {'choices': [{'message': {'content': 7}}]}),
  'empty': (200, completion(None)),
  'max_tokens': (200, completion('The digit moves to the', 'length')),
}


def question_of(body):
  """The text of the first user message."""
  content = next(message for message in body['messages'] if message['role'] == 'user')['content']
  return content if isinstance(content, str) else content[-1]['text']


def make(server, folder, **changes):
  settings = {
    'model': 'tiny',
    'url': server.url,
    'first_pause': 0.001,
    'request_seconds': 5.0,
    'largest_answer': LARGE,
  }
  return Endpoint(EndpointSettings(**(settings | changes)), folder)


def questions(count, word='clip'):
  return [Question(f'{word} {number}') for number in range(count)]


def failures(folder):
  path = folder / FAILED
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
