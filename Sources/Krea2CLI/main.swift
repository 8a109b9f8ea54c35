print("krea2")
