# kd
