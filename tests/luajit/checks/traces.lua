-- Nested loops, recursion, and exits that get traces of their own until a tree of them is deep.
local function nest(n)
  local sum = 0
  for a = 1, n do
    for b = a, n do
      if (a * b) % 3 == 0 then sum = sum + a else sum = sum - b end
      local c = 0
      while c < 5 do
        c = c + 1
        if c == b % 5 then sum = sum + c * 2 end
      end
    end
  end
  return sum
end
print(nest(50), nest(300))

local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
print(fib(27))

-- One loop with some hundred exits, each of which is taken.
local parts = {"return function(n) local s = 0 for i = 1, n do local k = i % 200\n"}
for k = 0, 199 do
  local branch = k == 0 and "if" or "elseif"
  parts[#parts + 1] = ("%s k == %d then s = s + %d.25 * i\n"):format(branch, k, k)
end
parts[#parts + 1] = "end end return s end"
local wide = assert(loadstring(table.concat(parts)))()
print(("%.17g"):format(wide(200000)))

-- A trace as long as its limits allow.
local long = {"return function(n) local x, y = 0.5, 1 for i = 1, n do\n"}
for k = 1, 500 do
  long[#long + 1] = ("x = x * %.3f + y; y = (y + %d) %% 1000\n"):format(1 / k, k)
end
long[#long + 1] = "end return x, y end"
print(("%.14g %.14g"):format(assert(loadstring(table.concat(long)))()(2000)))

-- Types that change in the middle.
local function add(list) local s = list[1] for i = 2, #list do s = s + list[i] end return s end
local ints, nums = {}, {}
for i = 1, 300 do ints[i] = i; nums[i] = i + 0.5 end
local s = 0
for i = 1, 300 do s = s + add(i % 3 == 0 and nums or ints) end
print(s)
