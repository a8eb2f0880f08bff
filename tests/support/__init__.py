"""What tests share: real servers on loopback, and the recorded archives."""
