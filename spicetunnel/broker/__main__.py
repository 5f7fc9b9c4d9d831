from spicetunnel.broker.daemon import main

main()
