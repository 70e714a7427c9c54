"""Votes of raters who are known: what is right, how often they see it, what they guess."""

import dataclasses
import itertools
import json
import math

import numpy as np

from mgjax.lab.evaluation.human.votes import Vote, append_votes


@dataclasses.dataclass(frozen=True)
class Raters:
  """Raters of a prompt see what is right of (win, tie, lose) with a probability, and guess else."""

  raters: int = 3
  shares: tuple[float, float, float] = (0.45, 0.15, 0.4)
  sees: float = 0.6
  guesses: tuple[float, float, float] = (0.3, 0.4, 0.3)

  def answers(self, truth):
    """How likely a rater is to say each where 0, 1 or 2 of them is right."""
    return [(1 - self.sees) * g + self.sees * (truth == i) for i, g in enumerate(self.guesses)]

  def majorities(self):
    """Shares of prompts whose majority is a win, a tie and a loss, by enumeration."""
    shares = [0.0, 0.0, 0.0]
    for truth, share in enumerate(self.shares):
      for counts in itertools.product(range(self.raters + 1), repeat=3):
        if sum(counts) == self.raters:
          ways = math.factorial(self.raters) / math.prod(map(math.factorial, counts))
          chances = (p**c for p, c in zip(self.answers(truth), counts, strict=True))
          best = [index for index, count in enumerate(counts) if count == max(counts)]
          shares[best[0] if len(best) == 1 else 1] += share * ways * math.prod(chances)
    return shares


USUAL = Raters()


def draw_counts(generator, prompts, raters=USUAL, studies=()):
  """Draws how many raters said win, tie and lose, of each prompt: (*studies, prompts, 3)."""
  truth = generator.choice(3, (*studies, prompts), p=raters.shares)
  answers = np.array([raters.answers(truth) for truth in range(3)])
  return generator.multinomial(raters.raters, answers[truth])


def net(raters=USUAL):
  """The net win rate, in points, that a study of all prompts there could be would find."""
  win, _, lose = raters.majorities()
  return 100 * (win - lose)


def make_votes(
  generator, prompts, models=('ours', 'theirs'), questions=('overall',), raters=USUAL, strengths=()
):
  """Makes votes of k raters on every pair of models of every prompt, sides shuffled.

  With strengths of models, raters are those of Davidson's model with eta = 0.
  """
  votes = []
  every = itertools.product(questions, range(prompts), itertools.combinations(models, 2))
  for question, prompt, pair in every:
    chances = raters.answers(generator.choice(3, p=raters.shares))
    if strengths:
      x, y = (strengths[models.index(name)] for name in pair)
      weights = np.exp([x, (x + y) / 2, y])
      chances = weights / weights.sum()
    for rater in range(raters.raters):
      left, right = pair if generator.random() < 0.5 else pair[::-1]
      winner = (*pair[:1], 'tie', *pair[1:])[generator.choice(3, p=chances)]
      choice = {left: 'left', right: 'right'}.get(winner, winner)
      item = f'{prompt}:{":".join(pair)}'
      votes.append(
        Vote(str(len(votes)), item, prompt, question, f'rater {rater}', left, right, choice, 9000)
      )
  return votes


def write_study(directory, votes, models=(), prompts=(), sigmas=None):
  """Writes a study's directory as launch.serve votes leaves it, as far as it matters here."""
  directory.mkdir(exist_ok=True)
  append_votes(directory / 'votes.jsonl', votes)
  study = {'name': 'a study', 'models': dict.fromkeys(models, 'folder'), 'prompts': list(prompts)}
  study['questions'] = [{'name': name, 'sigma': value} for name, value in (sigmas or {}).items()]
  (directory / 'study.json').write_text(json.dumps(study))
  return directory
