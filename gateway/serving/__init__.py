"""What a loaded model version is: its signature, its sessions and its lane."""
