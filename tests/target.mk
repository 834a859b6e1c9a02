# Tests of hw-fixtures/target/
