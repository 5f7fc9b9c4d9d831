from spice_connect.cli import main

main()
