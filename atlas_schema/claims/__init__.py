"""What may be said of recorded numbers: intervals, expressions, operators, licence, and settling predictions."""
