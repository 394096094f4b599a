-- Runs a program after memory that gained the right to be executed is refused (Linux 6.3):
-- mdwe.lua PROGRAM [ARGUMENTS]. Exits with 77 where the kernel cannot do that.
local ffi = require("ffi")
ffi.cdef("int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long);")
local SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ffi.C.prctl(SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) ~= 0 then os.exit(77) end
local program = table.remove(arg, 1)
arg[0] = program
dofile(program)
