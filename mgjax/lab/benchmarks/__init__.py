"""Times parts of mgjax beside named rivals."""
