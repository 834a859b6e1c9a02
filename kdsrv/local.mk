# kdsrv
