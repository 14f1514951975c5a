"""What every model and every task must hold, tried out from outside."""
