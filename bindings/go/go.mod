module callbridge

go 1.25
