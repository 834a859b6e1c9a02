include hw-fixtures/target/local.mk
