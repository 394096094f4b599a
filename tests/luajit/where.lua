-- Prints the access that the mapping of a compiled trace has: r-xs of a range that is mapped twice.
local sum = 0
for i = 1, 1000 do sum = sum + i % 7 end
local _, address = require("jit.util").tracemc(1)
assert(address, "nothing was compiled")
address = address % 2 ^ 47
for line in io.lines("/proc/self/maps") do
  local from, to, access = line:match("^(%x+)-(%x+) (%S+)")
  if tonumber(from, 16) <= address and address < tonumber(to, 16) then print(access) end
end
