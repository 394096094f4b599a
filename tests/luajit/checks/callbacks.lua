-- Callbacks from C, from compiled loops too; they stay where they are when traces are flushed.
local ffi = require("ffi")
ffi.cdef [[
void qsort(void *base, size_t count, size_t size, int (*compare)(const int *, const int *));
]]
local compared = 0
local compare = ffi.cast("int (*)(const int *, const int *)", function(a, b)
  compared = compared + 1
  return a[0] < b[0] and -1 or a[0] > b[0] and 1 or 0
end)
local n = 1000
local list = ffi.new("int[?]", n)
for round = 1, 10 do
  for i = 0, n - 1 do list[i] = (i * 7919 + round) % 10007 end
  ffi.C.qsort(list, n, 4, compare)
  local sum = 0
  for i = 0, n - 1 do sum = (sum * 31 + list[i]) % 1000003 end
  for i = 1, n - 1 do assert(list[i - 1] <= list[i]) end
  print(round, sum)
  jit.flush()
end
assert(compared > n)

-- As many as there may be, and each is called by way of C.
local all = {}
for i = 1, 300 do
  all[i] = ffi.cast("int (*)(int)", function(x) return x + i end)
end
local sum = 0
for round = 1, 3 do for i = 1, 300 do sum = sum + all[i](round) end end
for i = 1, 300 do all[i]:free() end
print(sum)

-- An error goes through C's frames.
local fails = ffi.cast("int (*)(const int *, const int *)", function()
  error("from a callback", 0)
end)
print(pcall(function() ffi.C.qsort(list, n, 4, fails) end))
