"""Code whose hardware it has not run on yet. Nothing of mgjax imports it by default."""
