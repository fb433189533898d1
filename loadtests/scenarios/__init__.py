"""What people do, a file each. `steady_chat` says what all of them measure."""
