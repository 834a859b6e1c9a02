# hw-fixtures/target
