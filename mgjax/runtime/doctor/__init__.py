"""Whether this machine has what mgjax needs: packages, devices, room, codecs, clock."""
