-- Errors that are thrown by what compiled code calls: the unwinder finds the code's frame. The
-- loops are in the function that pcall calls, since LuaJIT of 2022 fails in inlined ones.
local ffi = require("ffi")
local text, lens, last = ("text"):rep(100), {}, nil
for i = 1, 400 do lens[i] = i == 300 and -i or i end -- Too long for a string.
local count = 0
local function parts()
  for i = 1, 400 do last = ffi.string(text, lens[i]); count = count + #last end
end
for round = 1, 20 do
  local ok, what = pcall(parts)
  assert(not ok)
  count = count + #what:match("[^:]*$"):gsub(" ", "")
  if round % 7 == 0 then jit.flush() end
end
print(count)

local sum, failed
local function index(t, k) return t[k].x end
local objects = {}
for i = 1, 100 do objects[i] = {x = i} end
sum, failed = 0, 0
for i = 1, 2000 do
  local ok, x = pcall(index, objects, i % 101)
  if ok then sum = sum + x else failed = failed + 1 end
end
print(sum, failed)

local function deep(n) if n == 0 then error({n}) end return 1 + deep(n - 1) end
failed = 0
for i = 1, 300 do
  local ok, what = pcall(deep, i % 60)
  if not ok and what[1] == 0 then failed = failed + 1 end
end
print(failed)
print(select("#", pcall(string.rep)), pcall(function() local x = nil; return x.y end))
